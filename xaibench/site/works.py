"""The works that our methods, countermeasures and data sets come from: what a BibTeX entry needs and a `paper` string lacks.

A work is found by its arXiv number or DOI; one that is cited without either, by words that all stand in the citation. Names
are as on the first page of the work, "Surname, Given names"; "others" ends a list that is cut. Volume and pages are given
where they were at hand. What is not here is cited from its string alone (`xaibench.site.references`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """key: of the BibTeX entry. venue: journal of an article, book of a contribution, else where it can be had.

    says: words of a citation that names the work without arXiv number or DOI; all must be there, in any case of letters.
    """

    key: str
    kind: str  # article | inproceedings | misc
    authors: tuple[str, ...]
    title: str
    venue: str
    year: int
    arxiv: str = ""
    doi: str = ""
    volume: str = ""
    pages: str = ""
    says: tuple[str, ...] = ()


def _authors(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(";"))


def _in(key: str, venue: str, year: int, arxiv: str, authors: str, title: str) -> Work:
    return Work(key, "inproceedings", _authors(authors), title, venue, year, arxiv=arxiv)


def _preprint(key: str, year: int, arxiv: str, authors: str, title: str) -> Work:
    return Work(key, "misc", _authors(authors), title, f"arXiv:{arxiv}", year, arxiv=arxiv)


_CVPR = "Conference on Computer Vision and Pattern Recognition"
_ICASSP = "IEEE International Conference on Acoustics, Speech and Signal Processing (ICASSP)"
_ICCV = "International Conference on Computer Vision (ICCV)"
_ICML = "International Conference on Machine Learning (ICML)"
_IJCNN = "International Joint Conference on Neural Networks (IJCNN)"
_NEURIPS = "Advances in Neural Information Processing Systems (NeurIPS)"
_WACV = "IEEE Winter Conference on Applications of Computer Vision (WACV)"

_CAMS = (
    _in("selvaraju2017gradcam", _ICCV, 2017, "1610.02391",
        "Selvaraju, Ramprasaath R.; Cogswell, Michael; Das, Abhishek; Vedantam, Ramakrishna; Parikh, Devi; Batra, Dhruv",
        "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization"),
    _in("chattopadhyay2018gradcampp", _WACV, 2018, "1710.11063",
        "Chattopadhyay, Aditya; Sarkar, Anirban; Howlader, Prantik; Balasubramanian, Vineeth N.",
        "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks"),
    _preprint("draelos2020hirescam", 2020, "2011.08891", "Draelos, Rachel Lea; Carin, Lawrence",
              "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks"),
    _in("fu2020xgradcam", "British Machine Vision Conference (BMVC)", 2020, "2008.02312",
        "Fu, Ruigang; Hu, Qingyong; Dong, Xiaohu; Guo, Yulan; Gao, Yinghui; Li, Biao",
        "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs"),
    Work("jiang2021layercam", "article",
         _authors("Jiang, Peng-Tao; Zhang, Chang-Bin; Hou, Qibin; Cheng, Ming-Ming; Wei, Yunchao"),
         "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", "IEEE Transactions on Image Processing",
         2021, doi="10.1109/TIP.2021.3089943", volume="30", pages="5875--5888"),
    _in("muhammad2020eigencam", _IJCNN, 2020, "2008.00299", "Muhammad, Mohammed Bany; Yeasin, Mohammed",
        "Eigen-CAM: Class Activation Map using Principal Components"),
    Work("gildenblat2021pytorchgradcam", "misc", _authors("Gildenblat, Jacob; others"),
         "PyTorch library for CAM methods", "https://github.com/jacobgil/pytorch-grad-cam", 2021,
         says=("gildenblat", "pytorch-grad-cam")),
    _in("wang2020scorecam", f"{_CVPR} (CVPR) Workshops", 2020, "1910.01279",
        "Wang, Haofan; Wang, Zifan; Du, Mengnan; Yang, Fan; Zhang, Zijian; Ding, Sirui; Mardziel, Piotr; Hu, Xia",
        "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks"),
    Work("desai2020ablationcam", "inproceedings", _authors("Desai, Saurabh; Ramaswamy, Harish G."),
         "Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free Localization", _WACV, 2020,
         doi="10.1109/WACV45572.2020.9093360", pages="983--991", says=("desai", "ramaswamy", "2020")),
    _in("srinivas2019fullgrad", _NEURIPS, 2019, "1905.00780", "Srinivas, Suraj; Fleuret, François",
        "Full-Gradient Representation for Neural Network Visualization"),
    _in("zhang2025finercam", f"{_CVPR} (CVPR)", 2025, "2501.11309",
        "Zhang, Ziheng; Gu, Jianyang; Chowdhury, Arpita; Mai, Zheda; Carlyn, David; Berger-Wolf, Tanya; Su, Yu; "
        "Chao, Wei-Lun", "Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation"),
    _preprint("cai2025shapleycam", 2025, "2501.06261", "Cai, Huaiguang", "CAMs as Shapley Value-based Explainers"),
)  # fmt: skip

_GRADIENTS = (
    _in("simonyan2014saliency", "International Conference on Learning Representations (ICLR), Workshop", 2014, "1312.6034",
        "Simonyan, Karen; Vedaldi, Andrea; Zisserman, Andrew",
        "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps"),
    _preprint("shrikumar2016blackbox", 2016, "1605.01713",
              "Shrikumar, Avanti; Greenside, Peyton; Shcherbina, Anna; Kundaje, Anshul",
              "Not Just a Black Box: Learning Important Features Through Propagating Activation Differences"),
    _in("shrikumar2017deeplift", _ICML, 2017, "1704.02685", "Shrikumar, Avanti; Greenside, Peyton; Kundaje, Anshul",
        "Learning Important Features Through Propagating Activation Differences"),
    _in("sundararajan2017axiomatic", _ICML, 2017, "1703.01365", "Sundararajan, Mukund; Taly, Ankur; Yan, Qiqi",
        "Axiomatic Attribution for Deep Networks"),
    _preprint("smilkov2017smoothgrad", 2017, "1706.03825",
              "Smilkov, Daniel; Thorat, Nikhil; Kim, Been; Viégas, Fernanda; Wattenberg, Martin",
              "SmoothGrad: removing noise by adding noise"),
    _in("adebayo2018local", "International Conference on Learning Representations (ICLR), Workshop", 2018, "1810.03307",
        "Adebayo, Julius; Gilmer, Justin; Goodfellow, Ian; Kim, Been",
        "Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter Values"),
    _in("springenberg2015striving", "International Conference on Learning Representations (ICLR), Workshop", 2015,
        "1412.6806", "Springenberg, Jost Tobias; Dosovitskiy, Alexey; Brox, Thomas; Riedmiller, Martin",
        "Striving for Simplicity: The All Convolutional Net"),
    _in("zeiler2014visualizing", "European Conference on Computer Vision (ECCV)", 2014, "1311.2901",
        "Zeiler, Matthew D.; Fergus, Rob", "Visualizing and Understanding Convolutional Networks"),
    Work("bach2015lrp", "article",
         _authors("Bach, Sebastian; Binder, Alexander; Montavon, Grégoire; Klauschen, Frederick; Müller, Klaus-Robert; "
                  "Samek, Wojciech"),
         "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation", "PLoS ONE",
         2015, doi="10.1371/journal.pone.0130140", volume="10", pages="e0130140", says=("bach", "plos one", "2015")),
    _in("kohlbrenner2020lrp", _IJCNN, 2020, "1910.09840",
        "Kohlbrenner, Maximilian; Bauer, Alexander; Nakajima, Shinichi; Binder, Alexander; Samek, Wojciech; "
        "Lapuschkin, Sebastian", "Towards Best Practice in Explaining Neural Network Decisions with LRP"),
    Work("montavon2017deeptaylor", "article",
         _authors("Montavon, Grégoire; Lapuschkin, Sebastian; Binder, Alexander; Samek, Wojciech; Müller, Klaus-Robert"),
         "Explaining nonlinear classification decisions with deep Taylor decomposition", "Pattern Recognition", 2017,
         arxiv="1512.02479", doi="10.1016/j.patcog.2016.11.008", volume="65", pages="211--222"),
    _in("zhang2016excitation", "European Conference on Computer Vision (ECCV)", 2016, "1608.00507",
        "Zhang, Jianming; Lin, Zhe; Brandt, Jonathan; Shen, Xiaohui; Sclaroff, Stan",
        "Top-down Neural Attention by Excitation Backprop"),
)  # fmt: skip

_PERTURBATIONS = (
    _preprint("li2016erasure", 2016, "1612.08220", "Li, Jiwei; Monroe, Will; Jurafsky, Dan",
              "Understanding Neural Networks through Representation Erasure"),
    Work("castro2009shapley", "article", _authors("Castro, Javier; Gómez, Daniel; Tejada, Juan"),
         "Polynomial calculation of the Shapley value based on sampling", "Computers & Operations Research", 2009,
         doi="10.1016/j.cor.2008.04.004", volume="36", pages="1726--1730", says=("castro", "operations research", "2009")),
    Work("strumbelj2010explanation", "article", _authors("Štrumbelj, Erik; Kononenko, Igor"),
         "An Efficient Explanation of Individual Classifications using Game Theory",
         "Journal of Machine Learning Research", 2010, volume="11", pages="1--18", says=("strumbelj", "jmlr", "2010")),
    _in("lundberg2017shap", _NEURIPS, 2017, "1705.07874", "Lundberg, Scott M.; Lee, Su-In",
        "A Unified Approach to Interpreting Model Predictions"),
    Work("erion2021expected", "article",
         _authors("Erion, Gabriel; Janizek, Joseph D.; Sturmfels, Pascal; Lundberg, Scott M.; Lee, Su-In"),
         "Improving performance of deep learning models with axiomatic attribution priors and expected gradients",
         "Nature Machine Intelligence", 2021, arxiv="1906.10670", doi="10.1038/s42256-021-00343-w", volume="3",
         pages="620--631"),
    Work("owen1977unions", "inproceedings", _authors("Owen, Guillermo"), "Values of Games with a Priori Unions",
         "Mathematical Economics and Game Theory", 1977, doi="10.1007/978-3-642-45494-3_7", pages="76--88",
         says=("owen 1977",)),
    _in("ribeiro2016lime", "ACM SIGKDD International Conference on Knowledge Discovery and Data Mining (KDD)", 2016,
        "1602.04938", "Ribeiro, Marco Tulio; Singh, Sameer; Guestrin, Carlos",
        "“Why Should I Trust You?”: Explaining the Predictions of Any Classifier"),
    _in("fong2019extremal", _ICCV, 2019, "1910.08485", "Fong, Ruth; Patrick, Mandela; Vedaldi, Andrea",
        "Understanding Deep Networks via Extremal Perturbations and Smooth Masks"),
)  # fmt: skip

_NETWORKS = (
    Work("abnar2020rollout", "inproceedings", _authors("Abnar, Samira; Zuidema, Willem"),
         "Quantifying Attention Flow in Transformers",
         "Annual Meeting of the Association for Computational Linguistics (ACL)", 2020, arxiv="2005.00928"),
    _in("achtibat2024attnlrp", _ICML, 2024, "2402.05602",
        "Achtibat, Reduan; Vakilzadeh Hatefi, Sayed Mohammad; Dreyer, Maximilian; Jain, Aakriti; Wiegand, Thomas; "
        "Lapuschkin, Sebastian; Samek, Wojciech",
        "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers"),
    _in("chefer2021generic", _ICCV, 2021, "2103.15679", "Chefer, Hila; Gur, Shir; Wolf, Lior",
        "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers"),
    _in("grinberg2025gatr", _ICASSP, 2025, "2501.13887",
        "Grinberg, Petr; Kumar, Ankur; Koppisetti, Surya; Bharaj, Gaurav",
        "What Does an Audio Deepfake Detector Focus on? A Study in the Time Domain"),
    _in("grinberg2025diffusion", "Interspeech", 2025, "2506.03425",
        "Grinberg, Petr; Kumar, Ankur; Koppisetti, Surya; Bharaj, Gaurav",
        "A Data-Driven Diffusion-based Approach for Audio Deepfake Explanations"),
    Work("jethani2022fastshap", "inproceedings",
         _authors("Jethani, Neil; Sudarshan, Mukund; Covert, Ian; Lee, Su-In; Ranganath, Rajesh"),
         "FastSHAP: Real-Time Shapley Value Estimation",
         "International Conference on Learning Representations (ICLR)", 2022, arxiv="2107.07436"),
)  # fmt: skip

_COUNTERMEASURES = (
    Work("sahidullah2015features", "inproceedings", _authors("Sahidullah, Md; Kinnunen, Tomi; Hanilçi, Cemal"),
         "A Comparison of Features for Synthetic Speech Detection", "Interspeech", 2015,
         says=("sahidullah", "interspeech 2015")),
    _in("jung2022aasist", _ICASSP, 2022, "2110.01200",
        "Jung, Jee-weon; Heo, Hee-Soo; Tak, Hemlata; Shim, Hye-jin; Chung, Joon Son; Lee, Bong-Jin; Yu, Ha-Jin; "
        "Evans, Nicholas", "AASIST: Audio Anti-Spoofing using Integrated Spectro-Temporal Graph Attention Networks"),
    _in("lavrentyeva2019stc", "Interspeech", 2019, "1904.05576",
        "Lavrentyeva, Galina; Novoselov, Sergey; Tseren, Andzhukaev; Volkova, Marina; Gorlanov, Artem; Kozlov, Alexandr",
        "STC Antispoofing Systems for the ASVspoof2019 Challenge"),
    _in("wang2021comparative", "Interspeech", 2021, "2103.11326", "Wang, Xin; Yamagishi, Junichi",
        "A Comparative Study on Recent Neural Spoofing Countermeasures for Synthetic Speech Detection"),
    _in("tak2021rawnet2", _ICASSP, 2021, "2011.01108",
        "Tak, Hemlata; Patino, Jose; Todisco, Massimiliano; Nautsch, Andreas; Evans, Nicholas; Larcher, Anthony",
        "End-to-end anti-spoofing with RawNet2"),
    Work("halpern2020residual", "inproceedings",
         _authors("Halpern, Bence; Kelly, Finnian; van Son, Rob; Alexander, Anil"),
         "Residual Networks for Resisting Noise: Analysis of an Embeddings-based Spoofing Countermeasure",
         "Odyssey: The Speaker and Language Recognition Workshop", 2020, doi="10.21437/Odyssey.2020-46", pages="326--332"),
    _in("he2016resnet", f"{_CVPR} (CVPR)", 2016, "1512.03385", "He, Kaiming; Zhang, Xiangyu; Ren, Shaoqing; Sun, Jian",
        "Deep Residual Learning for Image Recognition"),
    _in("liu2024partially", "Interspeech", 2024, "2406.02483",
        "Liu, Tianchi; Zhang, Lin; Das, Rohan Kumar; Ma, Yi; Tao, Ruijie; Li, Haizhou",
        "How Do Neural Spoofing Countermeasures Detect Partially Spoofed Audio?"),
    _in("li2024tca", "Interspeech", 2024, "2406.08825", "Li, Menglu; Zhang, Xiao-Ping",
        "Interpretable Temporal Class Activation Representation for Audio Spoofing Detection"),
)  # fmt: skip

_DATA = (
    Work("wang2020asvspoof2019", "article",
         _authors("Wang, Xin; Yamagishi, Junichi; Todisco, Massimiliano; Delgado, Héctor; Nautsch, Andreas; others"),
         "ASVspoof 2019: A large-scale public database of synthesized, converted and replayed speech",
         "Computer Speech & Language", 2020, volume="64", pages="101114", says=("wang", "computer speech &", "2020")),
    Work("liu2023asvspoof2021", "article",
         _authors("Liu, Xuechen; Wang, Xin; Sahidullah, Md; Patino, Jose; Delgado, Héctor; Kinnunen, Tomi; "
                  "Todisco, Massimiliano; Yamagishi, Junichi; Evans, Nicholas; Nautsch, Andreas; Lee, Kong Aik"),
         "ASVspoof 2021: Towards Spoofed and Deepfake Speech Detection in the Wild",
         "IEEE/ACM Transactions on Audio, Speech, and Language Processing", 2023, volume="31", pages="2507--2522",
         says=("liu", "aslp 31", "2023")),
    Work("zhang2023partialspoof", "article",
         _authors("Zhang, Lin; Wang, Xin; Cooper, Erica; Evans, Nicholas; Yamagishi, Junichi"),
         "The PartialSpoof Database and Countermeasures for the Detection of Short Fake Speech Segments Embedded in an "
         "Utterance", "IEEE/ACM Transactions on Audio, Speech, and Language Processing", 2023,
         doi="10.1109/TASLP.2022.3233236", volume="31", pages="813--825"),
    Work("wang2023vocoded", "inproceedings", _authors("Wang, Xin; Yamagishi, Junichi"),
         "Spoofed Training Data for Speech Spoofing Countermeasure Can Be Efficiently Created Using Neural Vocoders",
         _ICASSP, 2023, arxiv="2210.10570", says=("wang", "yamagishi", "icassp 2023")),
    Work("mueller2022generalize", "inproceedings",
         _authors("Müller, Nicolas M.; Czempin, Pavel; Dieckmann, Franziska; Froghyar, Adam; Böttinger, Konstantin"),
         "Does Audio Deepfake Detection Generalize?", "Interspeech", 2022, arxiv="2203.16263",
         says=("müller", "interspeech 2022")),
    Work("sun2023librisevoc", "inproceedings", _authors("Sun, Chengzhe; Jia, Shan; Hou, Shuwei; Lyu, Siwei"),
         "AI-Synthesized Voice Detection Using Neural Vocoder Artifacts", f"{_CVPR} (CVPR) Workshops", 2023,
         arxiv="2304.13085", says=("sun", "cvpr workshops", "2023")),
    Work("ardila2020commonvoice", "inproceedings",
         _authors("Ardila, Rosana; Branson, Megan; Davis, Kelly; Kohler, Michael; Meyer, Josh; Henretty, Michael; "
                  "Morais, Reuben; Saunders, Lindsay; Tyers, Francis; Weber, Gregor"),
         "Common Voice: A Massively-Multilingual Speech Corpus", "Language Resources and Evaluation Conference (LREC)", 2020,
         arxiv="1912.06670", says=("ardila", "lrec 2020")),
    Work("frank2021wavefake", "inproceedings", _authors("Frank, Joel; Schönherr, Lea"),
         "WaveFake: A Data Set to Facilitate Audio Deepfake Detection",
         "Advances in Neural Information Processing Systems (NeurIPS), Datasets and Benchmarks", 2021, arxiv="2111.02813",
         says=("frank", "schönherr", "2021")),
)  # fmt: skip

WORKS = (*_CAMS, *_GRADIENTS, *_PERTURBATIONS, *_NETWORKS, *_COUNTERMEASURES, *_DATA)
