"""What a model, a run, a study and a record are: frozen values, no torch."""

from isoflop.config.measures import (
    Agreement,
    BlockMeasures,
    DecisionMeasures,
    FutureChange,
    Leak,
    Measures,
    RoutedEntropy,
    RouterWeights,
    RoutingSample,
    RunEvaluation,
    SampledToken,
    Stretch,
    TaskScore,
    TaskScores,
    TextSample,
    TokenSelection,
)
from isoflop.config.model import (
    Attention,
    BlockAttention,
    Cap,
    Choices,
    Decision,
    Depth,
    EveryToken,
    FeedForward,
    FullAttention,
    Gate,
    Gelu,
    ModelConfig,
    RandomK,
    Routed,
    ShapeFamily,
    SwiGlu,
    TopK,
    decisions,
)
from isoflop.config.own import Own, Part
from isoflop.config.precision import PrecisionChoice, PrecisionSpeed, PrecisionSpeeds
from isoflop.config.recipe import (
    BUILT_IN,
    STALE_NATS,
    AdamW,
    Cosine,
    Linear,
    Muon,
    Optimiser,
    Precision,
    Recipe,
    RecipeSettings,
    RecipeSource,
    Schedule,
    StudyRecipe,
    WarmupStableDecay,
)
from isoflop.config.record import (
    AttentionKernel,
    CurvePoint,
    Environment,
    Evaluation,
    ParameterCount,
    Recompute,
    RunRecord,
    SpanLoss,
    Split,
    State,
    Weights,
)
from isoflop.config.run import (
    Convention,
    DataConfig,
    EvaluationText,
    Positions,
    RunConfig,
    Span,
    TokenizerFile,
    Windows,
)
from isoflop.config.search import SETTINGS, Exponents, Search, Setting, Values
from isoflop.config.start import Start
from isoflop.config.study import Grid, ScaledModel, Scaling, Study, Variant
from isoflop.frozen import Frozen, canonical, fingerprint
